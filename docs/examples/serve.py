"""Serve a run's model over HTTP with plain transformers: no aang, no web framework.

    python serve.py runs/mine/model 8000
    curl -d '{"text": "The pump stopped."}' http://127.0.0.1:8000

The answer is what the pipeline says: ``{"label": "fault", "score": 0.98}``. A list of texts under ``text`` gives a list
of answers. For one process and a few requests a second; put a real server in front of anything public.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from transformers import pipeline

MOST_BYTES = 1_000_000


def handler(classify):
    """A request handler that answers with what `classify` says of the texts in a request's JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers.get("Content-Length", 0))
            if length > MOST_BYTES:
                return self.answer(413, {"error": f"at most {MOST_BYTES} bytes"})
            try:
                text = json.loads(self.rfile.read(length))["text"]
            except (ValueError, KeyError, TypeError):
                return self.answer(400, {"error": 'expected JSON such as {"text": "…"}'})
            texts = text if isinstance(text, list) else [text]
            if not texts or not all(isinstance(each, str) for each in texts):
                return self.answer(400, {"error": "text must be a text, or a list of texts"})
            answers = classify(texts, truncation=True)
            return self.answer(200, answers if isinstance(text, list) else answers[0])

        def answer(self, status, value):
            body = json.dumps(value, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def main(model, port):
    classify = pipeline("text-classification", model)
    with HTTPServer(("127.0.0.1", int(port)), handler(classify)) as server:
        print(f"serving {model} on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
