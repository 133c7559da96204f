"""The local platform: a stand-in for a tenant, in a process of its own. Notebooks meet only LocalPlatform."""
