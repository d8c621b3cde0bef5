"""The dashboard: `streamlit run app.py`, or `flfed app`. Its pages are the files of the dashboard's folder."""

from __future__ import annotations

import streamlit as st

from flfed.records.dashboard import page_files


def main() -> None:
    """Show the page of the address, or the first one."""
    st.set_page_config(page_title="flfed", layout="wide")
    pages = [
        st.Page(file, title=name.replace("-", " ").capitalize(), url_path=name, default=place == 0)
        for place, (name, file) in enumerate(page_files().items())
    ]
    st.navigation(pages, position="top").run()


if __name__ == "__main__":
    main()
