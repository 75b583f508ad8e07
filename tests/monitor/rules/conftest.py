from programs import checked, program

__all__ = ["checked", "program"]
