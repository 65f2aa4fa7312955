"""Serve the two admin endpoints: uvicorn fastapi_app:app, with ADMIN_TOKEN in the environment."""

import logging
import os
import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException

from feedback_etl.integrations.fastapi import create_router


def require_admin(authorization: Annotated[str, Header()] = "") -> None:
    """Require a bearer token; replace this with the authentication of your application."""
    token = os.environ["ADMIN_TOKEN"]
    if not token or not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise HTTPException(401, "A valid admin token is required.")


logging.basicConfig()  # logs the reason if an export fails
app = FastAPI()
app.include_router(create_router(dependencies=[Depends(require_admin)]))
