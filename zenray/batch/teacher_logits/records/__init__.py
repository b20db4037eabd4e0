"""How records lie on disk: codes, planes, checksums, and the formats made of them."""
