"""A small OpenID Connect provider on loopback: discovery, authorisation code, signed tokens, keys.

Whoever is asked for in the address of the login (`login_hint`), or set as `next_login`, logs in without a password.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "flfed", "only-for-tests"


class Provider:
    """The provider's state.

    Attributes
    ----------
    address : str
    person : dict
        The claims of whoever logs in next.
    spoil_nonce : bool
        Whether tokens carry a nonce that nobody asked for.
    """

    def __init__(self, address: str) -> None:
        self.address, self.person, self.spoil_nonce = address, {}, False
        self.key = RSAKey.generate_key(2048, parameters={"kid": "one", "use": "sig", "alg": "RS256"})
        self.codes: dict[str, dict[str, str]] = {}

    def discovery(self) -> dict[str, Any]:
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        found: dict[str, Any] = {name: f"{self.address}/{path}" for name, path in paths.items()}
        return found | {
            "issuer": self.address, "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"], "code_challenge_methods_supported": ["S256"],
        }  # fmt: skip

    def authorise(self, asked: dict[str, str]) -> str:
        """Return where the browser goes next: back to the app, with a code."""
        code = secrets.token_urlsafe()
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, form: dict[str, str]) -> dict[str, Any]:
        """Return the tokens of a code that was given out, once."""
        asked = self.codes.pop(form["code"])
        if "code_challenge" in asked:
            digest = hashlib.sha256(form["code_verifier"].encode()).digest()
            assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
        now = int(time.time())
        nonce = "another" if self.spoil_nonce else asked.get("nonce", "")
        claims = {"iss": self.address, "aud": CLIENT, "iat": now, "exp": now + 600, "nonce": nonce, **self.person}
        signed = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)
        return {"access_token": secrets.token_urlsafe(), "token_type": "Bearer", "expires_in": 600, "id_token": signed}


@contextmanager
def provider() -> Iterator[Provider]:
    """Serve a provider on a free port while the block runs."""

    class ClientGenerator(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, asked = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
            if path == "/authorize":
                self.send_response(302)
                self.send_header("Location", made.authorise({key: values[0] for key, values in asked.items()}))
                self.end_headers()
            elif path == "/keys":
                self._answer({"keys": [made.key.as_dict(private=False)]})
            else:
                self._answer(made.discovery())

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self._answer(made.token({key: values[0] for key, values in form.items()}))

        def _answer(self, found: dict[str, Any]) -> None:
            body = json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), ClientGenerator)
    made = Provider(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
