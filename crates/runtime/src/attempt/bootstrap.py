"""Runs a task's Python: a file as a script, or a function of it with the arguments it asks for."""
import inspect
import io
import json
import os
import runpy
import sys


def main():
    order = json.load(sys.stdin)
    sys.stdin = io.StringIO(json.dumps(order["context"]))
    context = dict(order["context"], xcom=order["xcom"])
    os.environ["BACKSTOP_CONTEXT"] = json.dumps(context)
    sys.argv = [order["path"] or "<inline>"]
    sys.path.insert(0, os.path.dirname(order["path"]) if order["path"] else os.getcwd())
    name = "__main__" if order["function"] is None else "backstop_task"
    if order["path"]:
        scope = runpy.run_path(order["path"], run_name=name)
    else:
        scope = {"__name__": name, "context": context}
        exec(compile(order["code"], "<inline>", "exec"), scope)
    if order["function"] is None:
        return
    function = scope.get(order["function"])
    if not callable(function):
        sys.exit("there is no function `%s` in %s" % (order["function"], order["path"] or "the inline code"))
    result = function(**arguments(function, order["args"], context))
    if inspect.iscoroutine(result):
        import asyncio

        result = asyncio.run(result)
    if result is not None:
        with open(order["result_path"], "w", encoding="utf-8") as out:
            json.dump(result, out, default=str, allow_nan=False)


def arguments(function, given, context):
    """What the function asks for: its own arguments, then names of the context; all of it for **kwargs."""
    known = dict(context, context=context, **given)
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return known
    return {p.name: known[p.name] for p in parameters if p.name in known}


main()
