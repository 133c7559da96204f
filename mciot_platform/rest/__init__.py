"""The REST interface: one module for each part of the vendor's description."""
