"""The wire: aiohttp, the key, bodies and failures. The only room beside the sandbox that imports aiohttp."""
