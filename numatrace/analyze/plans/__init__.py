"""Where the server could run and keep its memory, what each way would bring, what forbids it."""
