"""What the plugin brings. Nothing heavy is imported here: listing plugins loads this module."""

from aang_core import CallbackKind, hookimpl


@hookimpl
def aang_callbacks():
    return [
        CallbackKind(
            name="plateau",
            summary="End a training when the end-task's loss has stopped falling",
            factory="aang_plateau.stopping:Plateau",
            options={"window": 10, "least": 0.01},
        )
    ]
