"""Pages of the app, one file each.

A file is `pNN_name.py`. It is listed by its number, and its `show()` is called when Streamlit runs it.

A page file has no strings under its constants: Streamlit would print them on the page ("magic").
"""
