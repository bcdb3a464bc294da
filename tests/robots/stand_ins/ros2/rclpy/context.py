class Context:
    _ok = False

    def ok(self):
        return self._ok
