"""What a study asks for: its TOML text, the tables in it and the plan that training follows.

Read `study` first (the text, its hash and what is refused), then `tables` (one class a table of the file), then
`plan` (rounds, epochs, rates). Everybody may import it; it imports nothing but files of the root.
"""
