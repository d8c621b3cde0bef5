"""One file a page: `pNN_name.py`, listed by its number, whose `show()` is called when Streamlit runs it.

A page file has no strings under its constants: Streamlit would print them on the page ("magic").
"""
