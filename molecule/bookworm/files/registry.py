#!/usr/bin/python3
"""A registry for tests: TLS on 127.0.0.1:5000, one image under every name, and no trust data for any.

Arguments: an image as ``docker save`` writes it, and a file with a certificate and its key.
"""

import gzip
import hashlib
import http.server
import json
import ssl
import sys
import tarfile

ADDRESS = ("127.0.0.1", 5000)
TYPES = {
    "manifest": "application/vnd.docker.distribution.manifest.v2+json",
    "config": "application/vnd.docker.container.image.v1+json",
    "layer": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}


def digest(blob):
    """Return what a registry calls a blob."""
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def described(kind, blob):
    """Return what a manifest says of a blob."""
    return {"mediaType": TYPES[kind], "size": len(blob), "digest": digest(blob)}


def load(path):
    """Return the manifest of an image, and its blobs by digest."""
    with tarfile.open(path) as archive:

        def member(name):
            return archive.extractfile(name).read()

        (image,) = json.loads(member("manifest.json"))
        config = member(image["Config"])
        layers = [gzip.compress(member(name), 1) for name in image["Layers"]]
    manifest = {
        "schemaVersion": 2,
        "mediaType": TYPES["manifest"],
        "config": described("config", config),
        "layers": [described("layer", layer) for layer in layers],
    }
    return json.dumps(manifest).encode(), {digest(blob): blob for blob in (config, *layers)}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the pull of an image wants it."""

    def do_GET(self):
        """Answer with what was asked for."""
        last = self.path.rpartition("/")[2]
        if self.path == "/v2/":
            self.answer(b"{}", "application/json")
        elif "/manifests/" in self.path:
            self.answer(self.server.manifest, TYPES["manifest"])
        elif last in self.server.blobs:
            self.answer(self.server.blobs[last], "application/octet-stream")
        else:
            self.send_error(404)

    def do_HEAD(self):
        """Answer with its length."""
        self.do_GET()

    def answer(self, body, kind):
        """Send a body, or its length alone."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", digest(body))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def main(image, certificate):
    """Serve an image until somebody ends it."""
    server = http.server.ThreadingHTTPServer(ADDRESS, Handler)
    server.manifest, server.blobs = load(image)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
