"""A layered layout of nested frames, vectorised over all frames of the same height.

Sugiyama's four steps (Sugiyama, Tagawa, Toda 1981), with shortcuts that keep 12,000 boxes well below half a second:

1. ranks: the longest path from the sources; an arrow against the order of the nodes is turned round and drawn dashed.
2. order in a row: some sweeps in which every box moves to the mean of its neighbours, all rows at once.
3. places: the nearest to the wish that keeps boxes apart, by the mean of a running maximum from the left and a running
   minimum from the right, which is vectorised and monotone (a stand-in for isotonic regression).
4. arrows over several rows take a free column, or else a lane beside the boxes; arrows from the same box share one.
   A frame has at most `LANES` lanes on a side: further arrows join the last one, a bundle that tells its number.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]

GAP_X, GAP_Y = 18.0, 30.0  # between boxes of a row, between rows
GAP_PORTS, GAP_PORT = 6.0, 10.0  # between ports, between a border and the next row
LANE, LANES = 10.0, 6  # distance of lanes, and how many a frame may have on each side
PADDING, HEADER = 12.0, 24.0  # inside a frame
SWEEPS = 10
_FAR = 1e7  # more than any width


@dataclass(frozen=True)
class Problem:
    """Elements (boxes, frames, ports) and the arrows between elements of the same frame.

    Attributes:
        frame: int[m], the element that is each one's frame; -1 for the outermost.
        level: int[m], height of each element above its lowest content; 0 for boxes and ports.
        order: float[m], an order that most arrows follow.
        width: float[m], of boxes and ports; frames get theirs here.
        height: float[m], likewise.
        port: int[m], -1 for a port where arrows enter its frame, 1 where they leave, 0 for others.
        u: int[e], where each arrow begins.
        v: int[e], where it ends.
        source: int[e], arrows with the same number come from the same box and may share a lane.
        leaves: int[e], the port through which the arrow leaves frame u, or -1.
        enters: int[e], the port through which it enters frame v, or -1.
    """

    frame: Ints
    level: Ints
    order: Floats
    width: Floats
    height: Floats
    port: Ints
    u: Ints
    v: Ints
    source: Ints
    leaves: Ints
    enters: Ints


@dataclass(frozen=True)
class Placed:
    """Centres and sizes of elements; arrow e runs from (x0, y0) by a lane (nan: straight) to (x1, y1).

    `lane_top` and `lane_bottom` say between which heights the lane runs; `bundle` counts the arrows that share it.
    """

    x: Floats
    y: Floats
    width: Floats
    height: Floats
    x0: Floats
    y0: Floats
    x1: Floats
    y1: Floats
    lane: Floats
    lane_top: Floats
    lane_bottom: Floats
    bundle: Ints
    back: Flags
    size: tuple[float, float]


def place(problem: Problem) -> Placed:
    """Lay everything out."""
    return _Layout(problem).run()


class _Layout:
    def __init__(self, problem: Problem):
        self.p = problem
        count, edges = len(problem.frame), len(problem.u)
        self.x, self.y = np.zeros(count), np.zeros(count)  # centres, relative to the frame's corner
        self.width, self.height = problem.width.copy(), problem.height.copy()
        self.back = problem.order[problem.u] > problem.order[problem.v]
        self.lane = np.full(edges, np.nan)
        self.lane_top, self.lane_bottom = np.zeros(edges), np.zeros(edges)
        self.bundle = np.ones(edges, np.int64)
        self.size = (0.0, 0.0)

    def run(self) -> Placed:
        p = self.p
        depth_of_frame = np.where(p.frame >= 0, p.level[p.frame], p.level.max(initial=0) + 1)
        for level in np.unique(depth_of_frame):
            self._lay(np.flatnonzero(depth_of_frame == level), np.flatnonzero(depth_of_frame[p.u] == level))
        self._to_absolute()
        u, v = p.u, p.v
        x0 = np.where(p.leaves >= 0, self.x[p.leaves], self.x[u])
        x1 = np.where(p.enters >= 0, self.x[p.enters], self.x[v])
        y0 = np.where(p.port[u] != 0, self.y[u], self.y[u] + self.height[u] / 2)
        y1 = np.where(p.port[v] != 0, self.y[v], self.y[v] - self.height[v] / 2)
        return Placed(self.x, self.y, self.width, self.height, x0, y0, x1, y1, self.lane, self.lane_top,
                      self.lane_bottom, self.bundle, self.back, self.size)  # fmt: skip

    def _lay(self, elements: Ints, edges: Ints) -> None:
        """All frames of one level, whose contents are these elements and arrows."""
        p = self.p
        number = np.full(len(p.frame), -1)
        number[elements] = np.arange(len(elements))
        u, v = number[p.u[edges]], number[p.v[edges]]
        back = self.back[edges]
        a, b = np.where(back, v, u), np.where(back, u, v)  # along the order
        rank = _ranks(a, b, p.order[elements], p.port[elements], p.frame[elements])
        rows = _Rows(p.frame[elements], rank, self.width[elements], p.port[elements])
        shift_u, shift_v = self._shift(p.leaves[edges], p.u[edges]), self._shift(p.enters[edges], p.v[edges])
        # A frame with many ports is lined up by their middle: by the single ones, dense blocks would drift aside.
        mean_u, mean_v = self._mean(p.u[edges], shift_u), self._mean(p.v[edges], shift_v)
        x = rows.arrange(a, b, np.where(back, mean_v, mean_u), np.where(back, mean_u, mean_v))
        tall = np.zeros(rows.count)
        np.maximum.at(tall, rows.row, self.height[elements])
        top, end = rows.heights(tall)
        lanes = _Lanes(rows, x, self.width[elements], p.source[edges], x[a] + np.where(back, shift_v, shift_u),
                       x[b] + np.where(back, shift_u, shift_v), a, b)  # fmt: skip
        self.lane[edges], self.bundle[edges] = lanes.lane, lanes.bundle
        # A lane runs from the top of the first row that it passes to the bottom of the last.
        self.lane_top[edges] = top[np.minimum(rows.row[a] + 1, rows.count - 1)]
        after = np.maximum(rows.row[b] - 1, 0)
        self.lane_bottom[edges] = top[after] + tall[after]
        self._close(elements, edges, rows, x, top + tall / 2, end, lanes)

    def _shift(self, port: Ints, frame: Ints) -> Floats:
        """How far a port is to the right of its frame's middle; 0 for boxes."""
        return np.asarray(np.where(port >= 0, self.x[port] - self.width[frame] / 2, 0.0))

    def _mean(self, at: Ints, shift: Floats) -> Floats:
        """The mean shift of the arrows at each element."""
        count = np.bincount(at, minlength=1)
        return np.asarray((np.bincount(at, shift, len(count)) / np.maximum(count, 1))[at])

    def _close(self, elements: Ints, edges: Ints, rows: _Rows, x: Floats, middle: Floats, end: Floats,
               lanes: _Lanes) -> None:  # fmt: skip
        """Sizes of the frames, and places relative to their corners."""
        p = self.p
        left = np.minimum.reduceat(lanes.left, rows.first_row)
        right = np.maximum.reduceat(lanes.right, rows.first_row)
        of = rows.frame_number
        self.x[elements] = x - left[of] + PADDING
        y = middle[rows.row]
        port = p.port[elements]
        bottom = end[of]
        self.y[elements] = np.where(port < 0, 0.0, np.where(port > 0, bottom, y))
        self.lane[edges] += PADDING - left[of[lanes.a]]
        frames = rows.frames
        inner = frames >= 0
        self.width[frames[inner]] = (right - left + 2 * PADDING)[inner]
        self.height[frames[inner]] = end[inner]
        if not inner.all():
            outer = int(np.flatnonzero(~inner)[0])
            self.size = (float(right[outer] - left[outer] + 2 * PADDING), float(end[outer]))

    def _to_absolute(self) -> None:
        """Add the frames' corners, from the outermost inwards."""
        p = self.p
        corner_x, corner_y = np.zeros(len(p.frame)), np.zeros(len(p.frame))
        frame_of_edge = p.frame[p.u]
        dx, dy = np.zeros(len(p.frame)), np.zeros(len(p.frame))
        for level in range(int(p.level.max(initial=0)), -1, -1):
            here = np.flatnonzero((p.level == level) & (p.frame >= 0))
            dx[here], dy[here] = corner_x[p.frame[here]], corner_y[p.frame[here]]
            self.x[here] += dx[here]
            self.y[here] += dy[here]
            corner_x[here] = self.x[here] - self.width[here] / 2
            corner_y[here] = self.y[here] - self.height[here] / 2
            outer = np.flatnonzero((p.level == level) & (p.frame < 0))
            corner_x[outer] = self.x[outer] - self.width[outer] / 2
            corner_y[outer] = self.y[outer] - self.height[outer] / 2
        inner = frame_of_edge >= 0
        self.lane[inner] += corner_x[frame_of_edge[inner]]
        self.lane_top[inner] += corner_y[frame_of_edge[inner]]
        self.lane_bottom[inner] += corner_y[frame_of_edge[inner]]


def _ranks(a: Ints, b: Ints, order: Floats, port: Ints, frame: Ints) -> Ints:
    """Longest paths. What has nothing before it stands right above what reads it, not at the top."""
    rank = np.where(port < 0, 0, 1).astype(np.int64)
    by_order = np.lexsort((order[b], order[a]))
    first, last = a[by_order].tolist(), b[by_order].tolist()
    ranks = rank.tolist()
    for u, v in zip(first, last, strict=True):
        if ranks[v] <= ranks[u]:
            ranks[v] = ranks[u] + 1
    rank = np.array(ranks, np.int64)
    free = np.ones(len(rank), bool)
    free[b] = False
    free &= port == 0
    nearest = np.full(len(rank), np.iinfo(np.int64).max)
    np.minimum.at(nearest, a, rank[b])
    lonely = free & (nearest < np.iinfo(np.int64).max)
    rank[lonely] = nearest[lonely] - 1
    _, of = np.unique(frame, return_inverse=True)
    deepest = np.zeros(int(of.max(initial=-1)) + 1, np.int64)
    np.maximum.at(deepest, of, np.where(port > 0, 0, rank))
    return np.asarray(np.where(port > 0, deepest[of] + 1, rank))


class _Rows:
    """Elements in rows: row r belongs to one frame, rows of a frame follow each other from top to bottom."""

    def __init__(self, frame: Ints, rank: Ints, width: Floats, port: Ints):
        self.width, self.port = width, port
        self.frames, self.frame_number = np.unique(frame, return_inverse=True)
        # Frames without a port still start at their first rank.
        keys, self.row = np.unique(self.frame_number * (int(rank.max(initial=0)) + 2) + rank, return_inverse=True)
        self.count = len(keys)
        self.frame_of_row = keys // (int(rank.max(initial=0)) + 2)
        self.first_row = np.searchsorted(self.frame_of_row, np.arange(len(self.frames)))
        self.sorted = np.argsort(self.row, kind="stable")
        self.bounds = np.searchsorted(self.row[self.sorted], np.arange(self.count + 1))

    def arrange(self, a: Ints, b: Ints, shift_a: Floats, shift_b: Floats) -> Floats:
        """Centres of the elements along their rows."""
        x = self._pack(np.zeros(len(self.row)), self.sorted)
        span = np.maximum(self.row[b] - self.row[a], 1)
        weight = 1.0 / span
        total = {end: np.bincount(at, weight, len(x)) for end, at in (("up", b), ("down", a))}
        wish_up, wish_down = shift_a - shift_b, shift_b - shift_a
        chain, offset = self._chains(a, b, wish_up, span)
        members = np.bincount(chain)
        for sweep in range(SWEEPS):
            up = np.bincount(b, weight * (x[a] + wish_up), len(x))
            down = np.bincount(a, weight * (x[b] + wish_down), len(x))
            both = sweep >= SWEEPS - 4
            share_up = 1.0 if both or sweep % 2 == 0 else 0.0
            share_down = 1.0 if both or sweep % 2 == 1 else 0.0
            mass = share_up * total["up"] + share_down * total["down"]
            wish = np.where(mass > 0, (share_up * up + share_down * down) / np.where(mass > 0, mass, 1), x)
            wish = (np.bincount(chain, wish - offset) / members)[chain] + offset
            if not both:
                self.sorted = np.lexsort((wish, self.row))
            x = self._pack(wish, self.sorted)
        return x

    def _chains(self, a: Ints, b: Ints, shift: Floats, span: Ints) -> tuple[Ints, Floats]:
        """Elements that should stand straight below each other, and how far each is from its chain's line.

        Every element continues the chain of one element above it, and is continued by one below: the nearest ones.
        """
        before, shifts = [-1] * len(self.row), [0.0] * len(self.row)
        continued = [False] * len(self.row)
        order = np.lexsort((b, a, span))
        for u, v, by in zip(a[order].tolist(), b[order].tolist(), shift[order].tolist(), strict=True):
            if before[v] < 0 and not continued[u]:
                before[v], shifts[v], continued[u] = u, by, True
        chain, offset = list(range(len(self.row))), [0.0] * len(self.row)
        for v in np.argsort(self.row, kind="stable").tolist():
            u = before[v]
            if u >= 0:
                chain[v], offset[v] = chain[u], offset[u] + shifts[v]
        _, number = np.unique(chain, return_inverse=True)
        return number, np.array(offset)

    def _pack(self, wish: Floats, by_row: Ints) -> Floats:
        """The places nearest to the wishes that keep the elements of a row apart, in their order."""
        row, width = self.row[by_row], self.width[by_row]
        apart = np.where(self.port[by_row] != 0, GAP_PORTS, GAP_X)
        gap = np.zeros(len(row))
        gap[1:] = np.where(row[1:] == row[:-1], (width[1:] + width[:-1]) / 2 + apart[1:], 0.0)
        offset = np.cumsum(gap)
        starts = self.bounds[:-1]
        offset -= np.repeat(offset[starts], np.diff(self.bounds)) if len(starts) else 0.0
        base = row * _FAR
        slack = wish[by_row] - offset + base
        low = np.maximum.accumulate(slack)
        high = np.minimum.accumulate(slack[::-1])[::-1]
        x = np.empty(len(row))
        x[by_row] = (low + high) / 2 - base + offset
        return x

    def heights(self, tall: Floats) -> tuple[Floats, Floats]:
        """The top of each row below its frame's corner, and the height of each frame."""
        kind = np.zeros(self.count + 1, np.int64)
        kind[self.row] = self.port
        step = tall + np.where((kind[:-1] < 0) | (kind[1:] > 0), GAP_PORT, GAP_Y)
        total = np.concatenate([[0.0], np.cumsum(step)])
        base = total[self.first_row][self.frame_of_row]
        outermost = np.where(self.frames[self.frame_of_row] < 0, PADDING, HEADER)
        # A row of ports lies on the border itself.
        top = total[:-1] - base + outermost
        last = np.append(self.first_row[1:], self.count) - 1
        return top, top[last] + tall[last] + PADDING


class _Lanes:
    """Columns for arrows that pass rows."""

    def __init__(self, rows: _Rows, x: Floats, width: Floats, source: Ints, x0: Floats, x1: Floats, a: Ints, b: Ints):
        self.rows, self.x, self.width, self.a = rows, x, width, a
        self.left, self.right = np.full(rows.count, _FAR), np.full(rows.count, -_FAR)
        np.minimum.at(self.left, rows.row, x - width / 2)
        np.maximum.at(self.right, rows.row, x + width / 2)
        self._box_left, self._box_right = self.left.copy(), self.right.copy()
        self.lane = np.full(len(a), np.nan)
        self.bundle = np.ones(len(a), np.int64)
        self._sorted_x, self._sorted_half = x[rows.sorted], width[rows.sorted] / 2 + GAP_X / 2 - 1
        self._route(source, x0, x1, rows.row[a], rows.row[b])

    def _route(self, source: Ints, x0: Floats, x1: Floats, above: Ints, below: Ints) -> None:
        long = np.flatnonzero(below - above > 1)
        if not len(long):
            return
        # Arrows from one box through one frame are a trunk; trunks that reach less far come first and lie inside.
        _, trunk = np.unique(np.stack([source[long], above[long]]), axis=1, return_inverse=True)
        trunk = trunk.reshape(-1)
        order = np.lexsort((below[long], trunk))
        bounds = np.flatnonzero(np.diff(trunk[order], prepend=-1, append=-1))
        parts = [long[order[i:j]] for i, j in pairwise(bounds)]
        for part in sorted(parts, key=lambda part: int(below[part[-1]] - above[part[-1]])):
            end = part[-1]
            first, last = int(above[end]) + 1, int(below[end]) - 1
            column = self._column(first, last, float(x0[end]), float(x1[end]))
            self.lane[part] = column
            passed = slice(first, last + 1)
            self.left[passed], self.right[passed] = (
                np.minimum(self.left[passed], column), np.maximum(self.right[passed], column)
            )  # fmt: skip
        self._count(long, above, below)

    def _column(self, first: int, last: int, x0: float, x1: float) -> float:
        """Where an arrow passes rows `first` to `last`: straight on if nothing stands there, else beside the boxes."""
        begin, end = self.rows.bounds[first], self.rows.bounds[last + 1]
        boxes, half = self._sorted_x[begin:end], self._sorted_half[begin:end]
        for column in (x1, x0):
            if not (np.abs(boxes - column) < half).any():
                return column
        left, right = float(self.left[first : last + 1].min()), float(self.right[first : last + 1].max())
        if x0 + x1 - left - left < right + right - x0 - x1:
            inner = float(self._box_left[first : last + 1].min())
            return max(left - LANE, inner - LANES * LANE)
        inner = float(self._box_right[first : last + 1].max())
        return min(right + LANE, inner + LANES * LANE)

    def _count(self, long: Ints, above: Ints, below: Ints) -> None:
        """How many trunks share the lane of each arrow, where the lanes are used up."""
        frame = self.rows.frame_number[self.a[long]]
        key = np.stack([frame, np.round(self.lane[long] * 4).astype(np.int64), above[long]])
        _, trunk = np.unique(key, axis=1, return_inverse=True)
        _, lane, count = np.unique(key[:2], axis=1, return_inverse=True, return_counts=True)
        trunks = np.zeros(len(count), np.int64)
        pairs = np.unique(np.stack([lane.reshape(-1), trunk.reshape(-1)]), axis=1)
        np.add.at(trunks, pairs[0], 1)
        crowded = trunks[lane.reshape(-1)]
        self.bundle[long] = np.where(crowded > LANES, crowded, 1)
