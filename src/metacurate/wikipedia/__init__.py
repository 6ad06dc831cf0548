"""Wikipedia: its dumps and page views read, the words of its articles counted, in any language."""
