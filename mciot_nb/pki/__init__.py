"""Certificates on disk: the guide's files, as openssl and keytool read and write them. No network, no widgets."""
