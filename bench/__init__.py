"""Side by side in one sitting: this server with everything on, a plain FastAPI handler, uvicorn's bare hello."""
