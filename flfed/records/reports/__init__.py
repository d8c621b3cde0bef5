"""What a person is told of a run: figures put together, and sentences about them."""
