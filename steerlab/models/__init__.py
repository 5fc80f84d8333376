"""Language models (torch).

`language_model.LanguageModel` is a transformers model with its tokenizer, made of: `loading` and
`embedded` (from a name to a model), `blocks` (where its layers are), `identity` (which model it
is), `prompts` (from texts to tokens), `recording` (reading the residual stream), `generation`,
`inference` (which rows may share a batch), `uncompiled` and `unembedding`. On a CPU, `fast_layers`
computes linear layers by the fastest of `products`, `packing` holds weights in another order for
the length of a batch, `batch_size` says how many rows go at once, and `speed` measures a whole
model. `runtime` is the protocol that other engines can implement, and
`interventions` says what acts on a model right now.
"""

from steerlab.models.waiting import limit_spinning

limit_spinning()
