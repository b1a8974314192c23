"""What a policy in Python builds on: JSON, parameters, and errors that say where.

    class Limit(edge_script.Policy):
        def configure(self, parameters, names): ...
        def decide(self, record): return {"verdict": "pass", "score": 0, "reason": "ok"}

    Policy, State = edge_script.export(Limit())

The object is made when the component is built, and its image is what each instance starts from. An
exception of `configure` refuses the deployment, one of `decide` gives the frame its fail-safe.
There is no clock, randomness, file, network or print: reaching for one ends the instance.
"""

import json

from componentize_py_types import Err


class Refused(Exception):
    """A sentence for whoever runs the line; raised with it, or by the readers of parameters."""


class Parameters:
    """The parameters from the deployment. What was not asked for is refused after `configure`."""

    def __init__(self, given):
        if not isinstance(given, dict):
            raise Refused("parameters: expected an object")
        self._given = given
        self._asked = set()

    def whole(self, name, default, least, most):
        """A whole number of least..most."""
        value = self._ask(name, default)
        if type(value) is not int or not least <= value <= most:
            raise Refused(f"parameters.{name}: expected a whole number {least}..{most}")
        return value

    def number(self, name, default, least, most):
        """A number of least..most."""
        value = self._ask(name, default)
        if type(value) not in (int, float) or not least <= value <= most:
            raise Refused(f"parameters.{name}: expected a number {least}..{most}")
        return value

    def one_of(self, name, default, choices):
        """One of the choices."""
        value = self._ask(name, default)
        if value not in choices:
            raise Refused(f"parameters.{name}: expected one of {', '.join(map(str, choices))}")
        return value

    def table(self, name):
        """A table of settings, as it is; empty where absent."""
        value = self._ask(name, {})
        if not isinstance(value, dict):
            raise Refused(f"parameters.{name}: expected a table")
        return value

    def close(self):
        """Refuse what was not asked for: a misspelt parameter must not be a silent default."""
        for name in self._given:
            if name not in self._asked:
                known = ", ".join(sorted(self._asked)) or "none"
                raise Refused(f"parameters.{name}: not a parameter of this guest; it has {known}")

    def _ask(self, name, default):
        self._asked.add(name)
        return self._given.get(name, default)


class Policy:
    """A policy; `decide` is the least that it defines. `save` and `restore` go together."""

    def configure(self, parameters, names):
        """Once: `parameters` are a `Parameters`; `names` the rest of the document, a dict."""

    def decide(self, record):
        """For each frame: a record as dict in, an answer as dict out (guests/SCRIPTS.md)."""
        raise NotImplementedError

    def save(self):
        """All that is remembered from frame to frame, as something that JSON can say."""
        return None

    def restore(self, state):
        """What `save` gave, perhaps in another version of this policy; raise what you do not know."""
        raise Refused("this policy keeps no state")


def export(policy):
    """The two classes that a component exports, over one policy."""

    class Exported:
        def configure(self, document):
            def run():
                names = json.loads(document)
                parameters = Parameters(names.pop("parameters"))
                policy.configure(parameters, names)
                parameters.close()

            _told(run)

        def decide(self, record):
            return _told(lambda: json.dumps(policy.decide(json.loads(record)), allow_nan=False))

    class Remembered:
        def save(self):
            state = policy.save()
            return "" if state is None else json.dumps(state, allow_nan=False)

        def restore(self, text):
            _told(lambda: policy.restore(json.loads(text)))

    return Exported, Remembered


def _told(run):
    """Run, and turn an exception into a sentence with its place: a traceback would need files."""
    try:
        return run()
    except Refused as refused:
        raise Err(str(refused)) from None
    except Exception as error:
        place = error.__traceback__
        while place.tb_next is not None:
            place = place.tb_next
        code = place.tb_frame.f_code
        file = code.co_filename.rpartition("/")[2]
        raise Err(f"{file}:{place.tb_lineno}: {type(error).__name__}: {error}") from None
