"""Training of many sites at once, stacked.

All of it happens in one process, on arrays of shape [sites, rows, inputs].

Read `stack` first (weights of all sites in one array, gradients by hand), then `batches` (which rows of each site come
when) and `answer` (which sites make a stack, and the loop); `private_fit` is the same loop with clipping and noise a
row. Which fits train as one stack is in `rows/training/requests.py`.
"""
