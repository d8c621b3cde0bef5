"""Pages of the app, one file each.

A file is `pNN_name.py`. Its number gives its place, and Streamlit runs its last lines. A run's page shows its `parts`
for the run of the address, else the newest, and refreshes them while the run goes on.

A page file has no strings under its constants: Streamlit would print them on the page ("magic").
"""
