"""What a page of HTML is made of."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The tags, the links, the text and the table rows of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.targets, self.attributes = set(), [], set()
        self.order: list[str] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.order.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.targets += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.rstrip("\n")
