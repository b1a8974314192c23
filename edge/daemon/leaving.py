"""A person's wish to leave a deployment, and to return to the one before.

A wish is about one deployment. While it is on its way that deployment may fail by itself, or be
committed: a wish that did not name what it means would then take the device back one too far.
"""

import asyncio

from edge.deployment.rollout import Deployed


class Leaving:
    """The wish, until it is done.

    Attributes:
        wanted: Set while there is one.
    """

    def __init__(self) -> None:
        self.wanted = asyncio.Event()
        self._deployed: Deployed | None = None

    def want(self, deployed: Deployed) -> None:
        """Wish that a deployment is left."""
        self._deployed = deployed
        self.wanted.set()

    def is_about(self, deployed: Deployed | None) -> bool:
        """Whether it is this one that is to be left."""
        return self.wanted.is_set() and self._deployed == deployed

    def done(self, deployed: Deployed | None) -> None:
        """Take note that a deployment is left; a wish about another one stands."""
        if self._deployed == deployed:
            self.drop()

    def drop(self) -> None:
        """Forget the wish: what it is about is not there any more."""
        self._deployed = None
        self.wanted.clear()
