"""Two models side by side: what each of them is, how they differ, and the page that shows it."""
