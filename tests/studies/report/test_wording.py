from kernorm.reporting.page import _short_setting, prose
from kernorm.studies.wording import half, listed, p_value, score, signed, unit


def test_a_rate_that_was_computed_is_shown_in_four_digits():
    assert [_short_setting(value) for value in (0.03 * (4 / 128) ** 0.5, 0.015, 6.6e-3, 1e-05, 0.1 + 0.2)] == [
        *("≈ 0.005303", "0.015", "0.0066", "1e-5", "≈ 0.3")
    ]


def test_the_words_of_a_study_flow():
    text = "What of `a*b`?\nThe *same*.\n\n    python -m x <y>\n\nOne & two\nlines."
    assert prose(text) == (
        "<p>What of <code>a*b</code>? The <em>same</em>.</p><pre>python -m x &lt;y&gt;</pre><p>One &amp; two lines.</p>"
    )


def test_words_and_numbers():
    assert [p_value(value) for value in (None, 0.0004, 0.0123, 0.0994, 0.0996, 1.0)] == [
        *("–", "< 0.001", "0.012", "0.099", "0.10", "1.00")
    ]
    assert [signed(value) for value in (None, 0.0012, -0.0012, 0.00004, -0.00004)] == [
        *("–", "+0.12", "−0.12", "0.00", "0.00")
    ]
    assert signed(-0.00123, "brier") == "−0.0012"
    assert (half((0.0, 0.9)), half((0.2, 1.0)), half((1.0, 1.0))) == ("[0.00, 90.00]", "[20.00, 100.00]", "± 0.00")
    assert (score(None), score(0.99444), score(0.0123456, "ece")) == ("–", "99.44", "0.0123")
    assert (half(None), half((0.993, 0.9942)), half((0.1, 0.2), "brier")) == ("", "± 0.06", "± 0.0500")
    assert unit(-0.0005) == "−0.05 pp"
    assert listed("abcde") == "a, b, c, d, e"
    assert listed("abcdef") == "a, b, c, d and 2 more"
