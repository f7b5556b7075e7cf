"""The status page, in a real browser and over a real socket."""
