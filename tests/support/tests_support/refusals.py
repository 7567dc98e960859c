"""How a command tells the user's own mistake."""


def assert_refused(result, *, match):
    """Compare (exit status, standard output, standard error): status 2, and one line on standard
    error, which holds `match`."""
    status, out, err = result
    assert (status, out) == (2, "")
    assert err.count("\n") == 1 and match in err, err
