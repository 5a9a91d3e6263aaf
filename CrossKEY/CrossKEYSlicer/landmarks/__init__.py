"""Points found in another image, and how far known points are apart."""
