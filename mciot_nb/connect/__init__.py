"""Talking to a tenant: trusted certificates over REST, devices over MQTT. No widgets."""
