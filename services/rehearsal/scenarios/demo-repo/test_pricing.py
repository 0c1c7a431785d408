"""Tests of the prices. Run them with: python3 -m unittest"""

import time
import unittest

import pricing

ORDER = [(2, 1000), (1, 500)]


class PricingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Stands for the database that a test suite of this size would start.
        time.sleep(2)

    def test_lines_add_up(self):
        self.assertEqual(pricing.subtotal(ORDER), 2500)

    def test_no_discount_changes_nothing(self):
        self.assertEqual(pricing.total(ORDER), 2500)

    def test_discount_is_a_share_of_the_amount(self):
        self.assertEqual(pricing.total(ORDER, discount_percent=10), 2250)


if __name__ == "__main__":
    unittest.main()
