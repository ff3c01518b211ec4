"""What a file from elsewhere may do: nothing but be read. See docs/trust.md."""
