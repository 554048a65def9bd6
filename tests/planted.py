"""Softmax and its derivatives as people write them, right and wrong, for the tests of `diagnose`.

Nothing here comes from softgrad: every function is written out the way it is found in the wild, with loops, einsum
or fancy indexing, for logits of shape (B, C).
"""

import numpy as np


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def log_softmax(z):
    u = z - z.max(axis=-1, keepdims=True)
    return u - np.log(np.exp(u).sum(axis=-1, keepdims=True))


def softmax_over_batch(z):
    e = np.exp(z - z.max(axis=0))
    return e / e.sum(axis=0)


def softmax_over_everything(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def softmax_base_2(z):
    e = 2.0 ** (z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_unshifted(z):
    e = np.exp(z)
    return e / e.sum(axis=-1, keepdims=True)


# --- the Jacobian, from what ought to be probabilities --------------------------------------------------------------


def jacobian(p):
    return np.einsum("bi,ij->bij", p, np.eye(p.shape[1], dtype=p.dtype)) - np.einsum("bi,bj->bij", p, p)


def jacobian_by_loops(p):
    out = np.zeros((len(p), p.shape[1], p.shape[1]), dtype=p.dtype)
    for b, row in enumerate(p):
        for i in range(len(row)):
            for j in range(len(row)):
                out[b, i, j] = row[i] * (1 - row[i]) if i == j else -row[i] * row[j]
    return out


def jacobian_without_else(p):
    out = np.zeros((len(p), p.shape[1], p.shape[1]), dtype=p.dtype)
    for b, row in enumerate(p):
        for i in range(len(row)):
            for j in range(len(row)):
                if i == j:
                    out[b, i, j] = row[i] * (1 - row[i])
                out[b, i, j] = -row[i] * row[j]
    return out


def diagonal_matrix(p):
    return np.stack([np.diag(row * (1 - row)) for row in p])


# --- products with it -----------------------------------------------------------------------------------------------


def product(p, v):
    out = np.empty(np.broadcast_shapes(p.shape, v.shape), dtype=p.dtype)
    for at in np.ndindex(out.shape[:-1]):
        row = p[at[-1]]
        out[at] = (np.diag(row) - np.outer(row, row)) @ v[at]
    return out


def product_without_diagonal(p, v):
    return -p * np.einsum("bi,...bi->...b", p, v)[..., None]


# --- cross-entropy --------------------------------------------------------------------------------------------------


def one_hot(t, classes):
    T = np.zeros((len(t), classes))
    for row, k in zip(T, t, strict=True):
        if 0 <= k < classes:
            row[k] = 1
    return T


def mass(t, classes, weight=None, eps=0.0):
    """Target mass W of class indices or probabilities."""
    T = one_hot(t, classes) if np.ndim(t) == 1 else t
    T = (1 - eps) * T + eps / classes
    return T if weight is None else T * weight


def gradient(p, W, divisor):
    return (p * W.sum(axis=1, keepdims=True) - W) / divisor


def loss(log_p, W, divisor):
    return -(W * log_p).sum() / divisor
