"""CPU-bound work off the loop: admission, the queue, and pools of workers."""
