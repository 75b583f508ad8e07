"""The deployable folder NAME.fuse/: versioned, hashed, no pickle, no torch needed to read it."""

from fuseline.package.format import FORMAT, Package, read_buffer, read_member, read_package, write_package

__all__ = ["FORMAT", "Package", "read_buffer", "read_member", "read_package", "write_package"]
