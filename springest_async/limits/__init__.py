"""The limits: at most 30 POSTs in any 60 seconds as the server counts them, and 4000 requests an hour. No HTTP."""
