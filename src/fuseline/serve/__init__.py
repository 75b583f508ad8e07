"""A package as a service: a transport-free core, and the doors that adapt it. Knows no torch and no monitor."""
