"""A plugin of vLLM: every request may bring its own steering, by the names of a store.

Importable in vLLM's environment. `plugin` is the entry point; `admission` turns a request's text
into a `Steering`, in the process that answers HTTP; `worker` adds it in the processes that run the
model, which know neither names nor stores. Vectors travel with their request.
"""
