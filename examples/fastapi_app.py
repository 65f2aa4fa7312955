"""An application with the two admin endpoints: uvicorn fastapi_app:app, with ADMIN_TOKEN in the environment."""

import logging
import os
import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException

from feedback_etl.integrations.fastapi import create_router


def require_admin(authorization: Annotated[str, Header()] = "") -> None:
    """Let in whoever knows the token; an application has its own way."""
    token = os.environ["ADMIN_TOKEN"]
    if not token or not secrets.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise HTTPException(401, "An admin's token is needed.")


logging.basicConfig()  # shows why an export was refused
app = FastAPI()
app.include_router(create_router(dependencies=[Depends(require_admin)]))
