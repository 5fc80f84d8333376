"""Plain values and their arithmetic; numpy only.

`vector`, `direction` and `algebra` hold steering vectors and their arithmetic, `expression` and
`notation` the expression language, `recipe`, `derivation` and `record` how a vector came to be.
`setting`, `operation` and `sampling` say how a text is steered and written; `cell`, `run`, `sweep`
and `results` hold the texts and what was measured. `display` formats values for people.
"""
