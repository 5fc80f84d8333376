"""Language models (torch): loading, blocks, recording, generation, unembedding."""
