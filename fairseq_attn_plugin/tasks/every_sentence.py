"""Batches that lose no sentence."""


class EverySentence:
    """To be inherited before a fairseq task: ``get_batch_iterator`` hands out every sentence.

    fairseq-fixed leaves the last batch out, the longest sentences, where their number is no multiple of
    ``--required-batch-size-multiple``.
    """

    def may_lose_sentences(self, dataset) -> bool:
        """Whether fairseq's way is good enough for ``dataset``."""
        return False

    def is_split(self, dataset) -> bool:
        """Whether ``dataset`` is one of the task's splits, not lines that someone typed."""
        return any(dataset is loaded for loaded in self.datasets.values())

    def get_batch_iterator(
        self, dataset, *args, required_batch_size_multiple: int = 1, disable_iterator_cache: bool = False, **kwargs
    ):
        """fairseq's, but no sentence is dropped, and no iterator over typed lines is kept."""
        if not self.may_lose_sentences(dataset) or len(dataset) < required_batch_size_multiple:
            required_batch_size_multiple = 1
        return super().get_batch_iterator(
            dataset,
            *args,
            required_batch_size_multiple=required_batch_size_multiple,
            disable_iterator_cache=disable_iterator_cache or not self.is_split(dataset),
            **kwargs,
        )
