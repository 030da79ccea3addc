"""What `training.step` asks of a preconditioner: it watches some updates and changes the gradients of all."""

from typing import Any, Protocol


class Preconditioner(Protocol):
    """Changes true gradients in place before they are clipped; all ranks call each method together."""

    def begin(self, step: int, *, loss_terms: float, gradient_scale: float) -> None:
        """Prepare for the forward and backward passes of update number `step` (1-based, phases added up).

        What was seen of an update that was not taken is forgotten.

        Args:
            step: of the update.
            loss_terms: N, what the update's first loss is a mean over, over all ranks and micro-batches.
            gradient_scale: what the backward passes' gradients are multiplied by, to be divided out of what they show.
        """

    def passes_done(self) -> None:
        """Begin to send what the passes showed; nobody has seen yet whether the gradients are finite."""

    def precondition(self, *, learning_rate: float) -> None:
        """Change the parameters' gradients; called where they are finite on every rank."""

    def failures(self) -> int:
        """Return how often a layer's statistics were left out, or what it had was kept; the same on all ranks."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, plain values and tensors; whole on rank 0."""

    def load_state_dict(self, state: dict[str, Any], where: str) -> None:
        """Take over a state; `where` names the checkpoint in error messages.

        Raises:
            InputError: if the state is not this model's.
        """
