"""The client, its parts and what they do over HTTP."""
