"""Draw ``j-times-v.svg``: the product J·v without J, as weights on a beam.

python docs/picture.py
"""

from pathlib import Path

import numpy as np

Z = np.array([1.0, 0.2, -0.6, 0.7])
V = np.array([-2.0, -0.6, 1.2, 3.0])
COLORS = ("#3b6fb6", "#c2571a", "#2f8f5b", "#8a4fa3")
FILE = Path(__file__).with_name("j-times-v.svg")


def numbers():
    """p, the balance point s = Σ p v, and J v = p (v − s)."""
    p = np.exp(Z) / np.exp(Z).sum()
    s = float(p @ V)
    return p, s, p * (V - s)


def text(x, y, words, size=15, color="#222", anchor="middle"):
    """One SVG label."""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{color}" text-anchor="{anchor}">{words}</text>'


def matrix_side(p, product):
    """The sixteen numbers of J, and the vector they are multiplied by."""
    out = [text(170, 40, "with J: C² numbers", 18), text(170, 62, "J = diag(p) − p pᵀ", 14, "#555")]
    jacobian = np.diag(p) - np.outer(p, p)
    for i in range(4):
        for j in range(4):
            x, y = 28 + 50 * j, 90 + 42 * i
            strength = min(abs(jacobian[i, j]) / 0.25, 1.0)
            fill = "#2f8f5b" if jacobian[i, j] > 0 else "#c2571a"
            opacity = f"{0.12 + 0.4 * strength:.2f}"
            out.append(f'<rect x="{x}" y="{y}" width="48" height="40" fill="{fill}" opacity="{opacity}"/>')
            out.append(text(x + 24, y + 25, f"{jacobian[i, j]:.2f}", 13))
        y = 90 + 42 * i
        out.append(text(250, y + 25, f"{V[i]:.1f}", 14, COLORS[i]))
        out.append(text(312, y + 25, f"{product[i]:.2f}", 14, COLORS[i]))
    out += [text(250, 84, "v", 15), text(312, 84, "J v", 15), text(281, 178, "→", 16, "#555")]
    return out


def beam_side(p, s, product):
    """A weight p_i at each place v_i, the beam supported at s: J v are the torques."""

    def place(v):
        return 607 + 75 * v

    out = [text(635, 40, "without: weights pᵢ at the places vᵢ of a beam", 18)]
    out.append(text(635, 62, "1. where does it balance?  s = Σ pᵢ vᵢ", 14, "#555"))
    out.append(text(635, 81, "2. what torque is each weight's?  (J v)ᵢ = pᵢ (vᵢ − s)", 14, "#555"))
    out.append('<line x1="400" y1="200" x2="890" y2="200" stroke="#222" stroke-width="3"/>')
    x = place(s)
    out.append(f'<path d="M {x:.1f} 202 l -14 26 h 28 z" fill="#222"/>')
    out.append(text(x, 246, f"s = {s:.2f}"))
    for i in range(4):
        at, side = place(V[i]), 14 + 80 * np.sqrt(p[i])
        out.append(
            f'<rect x="{at - side / 2:.1f}" y="{199 - side:.1f}" width="{side:.1f}" height="{side:.1f}" '
            f'fill="{COLORS[i]}" opacity="0.85"/>'
        )
        out.append(text(at, 199 - side / 2 + 5, f"{p[i]:.2f}", 14, "#fff"))
        out.append(text(at, 218, f"v = {V[i]:.1f}", 13, COLORS[i]))
        out.append(text(at, 192 - side, f"{product[i]:+.2f}", 15, COLORS[i]))
    return out


def draw():
    """The whole picture."""
    p, s, product = numbers()
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 270" role="img" '
        'font-family="Helvetica, Arial, sans-serif">',
        "<title>The product of softmax's Jacobian with a vector, with and without the matrix</title>",
        '<rect width="900" height="270" fill="#fff"/>',
        '<line x1="365" y1="24" x2="365" y2="250" stroke="#ccc"/>',
        *matrix_side(p, product),
        *beam_side(p, s, product),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(draw(), encoding="utf-8")
