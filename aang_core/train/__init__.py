"""The loop: a resolved configuration becomes a session, and a session is trained."""
