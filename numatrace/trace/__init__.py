"""The trace file: schema, writer, reader."""
