"""Prices of an order, in whole cents."""


def subtotal(lines):
    """What all lines cost together; a line is a quantity and a unit price."""
    return sum(quantity * unit_price for quantity, unit_price in lines)


def discount(amount, percent):
    """The part of an amount that a discount takes off, rounded down."""
    return amount * percent // 100


def total(lines, discount_percent=0):
    """What the customer pays."""
    amount = subtotal(lines)
    return amount - discount_percent
