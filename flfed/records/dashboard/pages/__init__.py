"""Pages of the app, one file each.

A file is `pNN_name.py`. It is listed by its number, and its last lines are what Streamlit runs. That of a run shows its
`parts`, anew while the run goes on: the run of the address, else the newest.

A page file has no strings under its constants: Streamlit would print them on the page ("magic").
"""
