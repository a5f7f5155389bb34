"""What handlers find in the application."""

from aiohttp import web

from memoryd.memory.state import Memory

MEMORY = web.AppKey("memory", Memory)
